//! Everything that touches the server's C interface, and the only `unsafe` of this crate.
//!
//! Invariant: what leaves this module is safe to use by its types alone. Whatever is acquired
//! (a relation, a snapshot, an SPI connection, another identity, pinned settings) is held by a
//! guard; on an error PostgreSQL's own transaction abort releases it, so the guards do nothing
//! while unwinding.
#![doc = include_str!("README.md")]
#![allow(unsafe_code)]

pub mod backtrace;
pub mod bgworker;
pub mod catalog;
pub mod counters;
pub mod ddl;
pub mod fmgr;
pub mod guard;
pub mod locks;
pub mod parse_tree;
pub mod scan;
pub mod shared;
pub mod spi;
pub mod symbols;
pub mod trigger;
pub mod tuple;
pub mod utility;
pub mod value;
pub mod xact;

pub use pgrx::pg_sys::Oid;
