//! What the end-to-end tests share: random programs, the model, a database that can be killed, an archiver that is
//! driven step by step, and the comparison of a restored copy with the model.
#![allow(dead_code)] // every test program uses its own part

pub mod archive_driver;
pub mod command;
pub mod compare;
pub mod driver;
pub mod history;
pub mod load;
pub mod lossy_proxy;
pub mod metrics;
pub mod model;
pub mod mount;
pub mod program;
pub mod sample;
pub mod scenario;
pub mod scene;
pub mod scratch;
pub mod server;
pub mod services;
pub mod site;
pub mod station;
pub mod transactions;
