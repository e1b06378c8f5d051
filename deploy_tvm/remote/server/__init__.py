"""The RPC server that runs on a device, built of the C++ beside this file."""
