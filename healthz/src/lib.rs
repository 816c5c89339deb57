//! healthz.
