"""Cases: what is edited. A case is a picture (or, for the mixture, a cloud of points) with a source and a target prompt."""
