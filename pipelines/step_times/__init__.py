"""How long training takes: a step of each stage, beside a step of other libraries' networks."""
