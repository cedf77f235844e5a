//! What the embedded store holds after a power cut at any moment.
