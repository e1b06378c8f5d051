"""Archives for boards without a TVM runtime."""
