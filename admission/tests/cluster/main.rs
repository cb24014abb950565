//! The cluster side against a mock API server: watches, conflicts, outages, and what the commands make of a cluster.

mod audit;
mod certificates;
mod client;
mod events;
mod explain;
mod fixtures;
mod mock_api;
mod parameters;
mod preflight;
mod rest;

mod uninstall;
mod watches;
