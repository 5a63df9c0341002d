#![no_main]
libfuzzer_sys::fuzz_target!(
    init: thalweg_fuzz::write_examples("job_toml"),
    |bytes: &[u8]| thalweg_fuzz::run("job_toml", bytes)
);
