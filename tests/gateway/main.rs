//! The cache as a layer: of servers over HTTP, and of clients.

mod client;
mod server;
mod upstream;
