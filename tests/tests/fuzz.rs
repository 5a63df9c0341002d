//! The short form of fuzzing: every target of `fuzz/` over its examples with random changes. `scripts/fuzz` has the long one.

#[allow(unreachable_pub, reason = "it is a library for the programs of cargo-fuzz")]
#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

use thalweg_tests::Random;

/// Bytes of no meaning, and of all formats.
const PIECES: [&[u8]; 12] = [
    b"\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\"",
    b"\n",
    b"{",
    b"[[[[[[[[[[[[[[[[",
    b"((((((((((((((((",
    b"\xf0\x9f\x98\x80",
    b"\x80",
    b"-9223372036854775808",
    b"1e999",
    b"=\"\"\"",
];

/// Changed inputs of one target.
const ROUNDS: u64 = 2_000;
/// The seed of the gate, which always tries the same; `scripts/fuzz` tries others.
const SEED: u64 = 11;

fn mutate(bytes: &mut Vec<u8>, random: &mut Random, others: &[Vec<u8>]) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() as u64 + 1) as usize;
        let to = at + random.below((bytes.len() - at) as u64 + 1).min(random.below(20)) as usize;
        match random.below(7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..to)),
            2 => drop(bytes.splice(at..at, random.pick(&PIECES).iter().copied())),
            3 => drop(bytes.splice(at..to, random.pick(&PIECES).iter().copied())),
            4 => {
                let copy = bytes[at..to].to_vec();
                drop(bytes.splice(at..at, copy));
            }
            5 => {
                let other = random.pick(others);
                let from = random.below(other.len() as u64 + 1) as usize;
                drop(bytes.splice(at..at, other[from..].iter().copied()));
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
}

fn check(target: &fuzz::Target, seed: u64) {
    let examples = (target.examples)();
    assert!(!examples.is_empty(), "{} has no examples", target.name);
    examples.iter().for_each(|bytes| (target.run)(bytes));
    let mut random = Random::new(seed);
    for round in 0..ROUNDS {
        let mut bytes = random.pick(&examples).clone();
        mutate(&mut bytes, &mut random, &examples);
        let outcome = std::panic::catch_unwind(|| (target.run)(&bytes));
        if outcome.is_err() {
            panic!(
                "{}, THALWEG_SEED={seed}, round {round}: {bytes:?}: {:?}",
                target.name,
                String::from_utf8_lossy(&bytes)
            );
        }
    }
}

#[test]
fn no_target_fails() {
    let given = std::env::var("THALWEG_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or(SEED);
    println!("repeat with THALWEG_SEED={seed}");
    for target in &fuzz::TARGETS {
        check(target, seed);
    }
    // As the programs of cargo-fuzz call them.
    assert!(std::env::var_os(fuzz::EXAMPLES).is_none(), "the tests write no examples");
    fuzz::write_examples("key");
    fuzz::run("key", b"");
}

/// A new target has its program, and the other way round.
#[test]
fn every_target_has_a_program() {
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/Cargo.toml")).expect("fuzz");
    let manifest: toml::Table = manifest.parse().expect("a manifest");
    let programs =
        manifest["bin"].as_array().expect("programs").iter().map(|bin| bin["name"].as_str().expect("a name"));
    let mut programs: Vec<&str> = programs.collect();
    let mut targets: Vec<&str> = fuzz::TARGETS.iter().map(|target| target.name).collect();
    programs.sort_unstable();
    targets.sort_unstable();
    assert_eq!(programs, targets);
    for name in programs {
        let path = format!("{}/../fuzz/fuzz_targets/{name}.rs", env!("CARGO_MANIFEST_DIR"));
        let program = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(program.contains(&format!("run(\"{name}\", bytes)")), "{path} runs something else");
    }
}
