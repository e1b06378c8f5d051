"""Devices that are reached over TVM's RPC: boards, phones, and an emulated board for tests."""
