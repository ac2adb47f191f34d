"""How a comparison runs: names become objects, cells are planned and executed, cost is metered, records are written."""
