#![no_main]
libfuzzer_sys::fuzz_target!(
    init: thalweg_fuzz::write_examples("state_folder"),
    |bytes: &[u8]| thalweg_fuzz::run("state_folder", bytes)
);
