//! The server over real TLS, as the API server meets it.

mod bad_input;
mod certificates;
mod docs;
mod load;
mod rotation;
mod slice;
mod support;
