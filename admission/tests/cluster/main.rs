//! The cluster side against a mock API server: watches, conflicts, outages, and what the commands make of a cluster.

mod client;
mod events;
mod fixtures;
mod mock_api;
mod rest;

mod watches;
