#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| nodens_fuzz::corefile_text(data));
