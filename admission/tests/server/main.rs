//! The server over real TLS, as the API server meets it.

mod bad_input;
mod slice;
mod support;
