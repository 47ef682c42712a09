"""HTTP as such: the server, who may call, how much, bodies, answers and event streams."""
