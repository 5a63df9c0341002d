//! The same bytes again: with other numbers of workers, and where nothing depends on the clock.

use std::path::PathBuf;

use crate::reference::{Reference, recorded_run};
use crate::sketch::JobSketch;
use crate::{Binary, Ended, Folder, Outputs, Process, RunFlags, input};

/// A job in a folder of its own.
struct Copy {
    job: JobSketch,
    folder: Folder,
}

impl Copy {
    fn new(job: &JobSketch) -> Self {
        let folder = Folder::new();
        input::write(job, &folder);
        folder.write("job.toml", job.to_toml());
        Self { job: job.clone(), folder }
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn run(&mut self, workers: u32, bindings: Option<PathBuf>) -> Result<Outputs, String> {
        let binary = if self.job.is_custom() { Binary::exact_job() } else { Binary::thalweg() };
        let flags = RunFlags { workers, bindings, ..RunFlags::new(self.data()) };
        let mut process = Process::start(&binary, &self.folder.join("job.toml"), &flags, &self.folder.join("run.log"));
        match process.wait() {
            Ended::Code(0) => Outputs::read(&self.job, self.folder.path(), &self.data()),
            ended => Err(format!("with {workers} workers it ended with {ended:?}:\n{}", process.log())),
        }
    }
}

/// Records a run with one worker and repeats it with 2 and 4, each in a folder of its own.
///
/// Errors: the first difference.
pub fn repeat_with_workers(seed: u64, custom: bool) -> Result<usize, String> {
    let job = JobSketch::generate(seed, custom);
    let mut first = Copy::new(&job);
    let outputs = first.run(1, None)?;
    let run = recorded_run(&first.data())?;
    outputs.check(&Reference::interpret(&job, first.folder.path(), &run, &Default::default())?)?;
    for workers in [2, 4] {
        let mut again = Copy::new(&job);
        let repeated = again.run(workers, Some(first.data()))?;
        compare(&outputs, &repeated, workers).inspect_err(|_| {
            println!("left in {} and {}", first.folder.keep().display(), again.folder.keep().display());
        })?;
    }
    Ok(run.bindings.len())
}

/// Runs a job whose epochs are cut by count alone with 1, 2 and 4 workers: nobody records anything for the other.
///
/// Errors: the first difference.
pub fn two_runs_agree(seed: u64) -> Result<(), String> {
    let job = JobSketch { interval: None, ..JobSketch::generate(seed, false) };
    let outputs = Copy::new(&job).run(1, None)?;
    [2, 4].into_iter().try_for_each(|workers| compare(&outputs, &Copy::new(&job).run(workers, None)?, workers))
}

fn compare(outputs: &Outputs, again: &Outputs, workers: u32) -> Result<(), String> {
    let expected = Reference {
        files: outputs.files.clone(),
        topics: outputs.topics.clone(),
        dead_letters: outputs.dead_letters.clone(),
        ..Reference::default()
    };
    again.check(&expected).map_err(|error| format!("with {workers} workers: {error}"))
}
