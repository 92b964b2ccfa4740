"""From what the ledger has to what the page shows. Pure: no clock, no network."""
