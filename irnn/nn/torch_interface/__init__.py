"""What users of torch's recurrent modules bring along: arguments, inputs, names of parameters, state dicts."""
