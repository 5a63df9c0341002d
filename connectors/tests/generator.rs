//! The generator fulfils the duties of every source.

use thalweg_connectors::GeneratorSource;
use thalweg_connectors::conformance::check_source;

#[test]
fn the_generator_fulfils_the_duties() {
    for (keys, skew, partitions) in [(1, 0.0, 1), (100, 0.0, 3), (100, 1.1, 4), (3_000_000, 1.0, 2)] {
        let source = GeneratorSource { count: Some(150), keys, skew, seed: 5, partitions };
        check_source(|| Box::new(source.clone()), 1);
    }
}
