"""What the tests of several folders share: oracles, random programs, small models, corpora and boards, needs."""
