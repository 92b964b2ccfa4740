"""The real stages and the real ledger in simulated worlds, in which one actor moves at a time.

A world has a topic, rows, an index and services in memory (`simulation.stores`), a ledger in PostgreSQL, and actors: the
tasks of runs as Airflow tries them, the watcher, the LMS, a producer, an operator. At each call to the world the
chooser says who goes on and what becomes of the call. For uses of one's own:

    from simulation.farm import opened_farm          # processes with a ledger each: farm.map(function, items)
    from simulation.setup import Setup, BatchSpec, MessageSpec, EditSpec, OrderSpec
    from simulation.choosers import Plain, CrashAt, Scripted, Drawn
    from simulation.trial import play                # play(setup, chooser, engine) -> Outcome

    def crash(engine, n):                            # a function of a module: processes import it
        setup = Setup((BatchSpec("k", "b", "a"),), (MessageSpec(1, "m0", "a", "b"),))
        return play(setup, CrashAt([n], Fate.DIES_AFTER), engine).violations

    with opened_farm() as farm:
        for violations in farm.map(crash, range(1, 100)):
            ...

`CrashAt(points, fate, stores=…)` strikes the n-th calls of tasks; its `counted` has all that it counted, so a world
played once without points says how many there are. `Outcome.violations` is empty if all is as it must be; `excused`
says why a world was not judged in full; `simulation.story.story` makes a story of the trace. An order (`OrderSpec`) is a
run's kind (`manual`, `undo`, `scheduled`, `reconcile`, or `clear` and `fail` for one that is there) and its conf; to act step by
step, make a `World`, spawn an actor of one's own (`world.scheduler.spawn`), and call `world.carry_out(order)` and
`world.scheduler.wait(…)` in it.

`make simulate` plays the worlds of seeds: `simulation.setup.drawn_setup` and `simulation.choosers.Drawn`.
"""
