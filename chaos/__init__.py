"""The fault suite: random worlds and events, faults in real processes, and an oracle that shares no code with the job.

make chaos SEED=7 MINUTES=10
"""
