"""Published figures: of boards and ARM cores (``arm``), and a suite for each kind of machine (``suite``, ``speed``)."""
