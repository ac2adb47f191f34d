"""ODE solvers: how a velocity field is walked. One method a file; `base` holds the contract, `conformance` the examination."""
