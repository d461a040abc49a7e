"""The network: two encoders, the space-time memory read, ASPP and the decoder."""
