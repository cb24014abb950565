//! The conformance suite on the epoll runtime. The rows are in `nodens_runtime::conformance`.

use nodens_runtime_tokio::Tokio;

nodens_runtime::conformance_suite!(Tokio);
