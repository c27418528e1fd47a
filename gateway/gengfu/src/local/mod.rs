//! What the box itself offers: a socket for the command line, metrics, and what is heard and seen on site.
//!
//! Owns the local socket's protocol and the report behind `gengfu status`. Read-only but for orders of somebody on site: silence the sounders, take a
//! device out of service or test it, hold a drill, update a node. It listens on a Unix
//! socket (0660) and on loopback, never on the network unless the installer's configuration says so.

pub mod journal;
pub mod metrics;
pub mod on_site;
pub mod outputs;
pub mod report;
pub mod socket;
