//! What a test runner says about itself, read from its own lines.

use std::time::Duration;

/// Counts of one runner, or of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed; a runner that died counts as one.
    pub failed: u64,
    /// Tests that were not run.
    pub ignored: u64,
    /// Names of those that failed.
    pub failures: Vec<String>,
    /// How long it took.
    pub time: Duration,
}

impl Tally {
    /// Adds another's counts.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.failures.extend(other.failures);
        self.time += other.time;
    }
}

/// Reads a runner's output as it comes.
#[derive(Debug, Default)]
pub struct Reader {
    tally: Tally,
    line: Vec<u8>,
    /// Names since the last line `failures:`. It stands twice: before what the tests printed, and before their names.
    names: Option<Vec<String>>,
}

impl Reader {
    /// Takes the next bytes.
    pub fn read(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.line(&String::from_utf8_lossy(&line));
            } else {
                self.line.push(byte);
            }
        }
    }

    fn line(&mut self, line: &str) {
        if line.trim_end() == "failures:" {
            self.names = Some(Vec::new());
        } else if let Some(result) = line.strip_prefix("test result:") {
            self.result(result);
        } else if let (Some(names), Some(name)) = (&mut self.names, line.strip_prefix("    ")) {
            names.push(name.trim_end().to_owned());
        }
    }

    fn result(&mut self, result: &str) {
        let words = result.split_whitespace().collect::<Vec<_>>();
        let count = |what: &str| {
            let number = words.windows(2).find(|pair| pair[1] == what).and_then(|pair| pair[0].parse::<u64>().ok());
            number.unwrap_or(0)
        };
        self.tally.passed += count("passed;");
        self.tally.failed += count("failed;");
        self.tally.ignored += count("ignored;");
        self.tally.failures.extend(self.names.take().into_iter().flatten());
    }

    /// The counts, when the output has ended.
    pub fn finish(mut self) -> Tally {
        let rest = std::mem::take(&mut self.line);
        self.line(&String::from_utf8_lossy(&rest));
        self.tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_names_are_read_from_a_coloured_and_cut_up_output() {
        let output = "\nrunning 3 tests\ntest a ... ok\ntest b::c ... FAILED\n\nfailures:\n\n---- b::c stdout ----\n    indented\n\n\
                      failures:\n    b::c\n\ntest result: \x1b[31mFAILED\x1b[m. 1 passed; 1 failed; 1 ignored; 0 measured; \
                      0 filtered out; finished in 0.01s\n\n";
        let mut reader = Reader::default();
        for part in output.as_bytes().chunks(7) {
            reader.read(part);
        }
        let tally = reader.finish();
        assert_eq!((tally.passed, tally.failed, tally.ignored), (1, 1, 1));
        assert_eq!(tally.failures, ["b::c"]);
    }

    #[test]
    fn results_of_several_runners_add_up() {
        let mut reader = Reader::default();
        reader
            .read(b"test result: ok. 2 passed; 0 failed; 0 ignored;\ntest result: ok. 3 passed; 0 failed; 1 ignored;");
        let tally = reader.finish();
        assert_eq!((tally.passed, tally.failed, tally.ignored), (5, 0, 1));
    }
}
