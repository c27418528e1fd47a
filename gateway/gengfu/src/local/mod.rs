//! What the box itself offers: a socket for the command line, and metrics.
//!
//! Owns the local socket's protocol and the report behind `gengfu status`. Read-only: nothing asked here changes the gateway. It listens on a Unix
//! socket (0660) and on loopback, never on the network unless the installer's configuration says so.

pub mod metrics;
pub mod outputs;
pub mod report;
pub mod socket;
