//! The server over real TLS, as the API server meets it.

mod bad_input;
mod certificates;
mod defects;
mod docs;
mod load;
mod rotation;
mod slice;
mod support;
