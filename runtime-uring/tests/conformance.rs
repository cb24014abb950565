//! The conformance suite on the io_uring runtime. The rows are in `nodens_runtime::conformance`.

use nodens_runtime_uring::Uring;

nodens_runtime::conformance_suite!(Uring);
