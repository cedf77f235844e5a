//! The protocol under faults: the production steps over simulated ports.
