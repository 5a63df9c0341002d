//! Where one record of a file ends and the next begins.

use crate::Format;

/// How a file is cut into records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Framing {
    /// Delimiter and quote, where a quoted cell may hold line ends.
    quotes: Option<(u8, u8)>,
    /// Whether the first record names the columns.
    pub(super) header: bool,
}

impl Framing {
    /// Every format is cut at line ends; in `csv` not at those inside quotes, unless the options say that there are none.
    pub(super) fn of(format: &Format) -> Self {
        match format {
            Format::Json | Format::Lines | Format::Raw => Self { quotes: None, header: false },
            Format::Csv(options) => Self {
                quotes: options.multiline.then_some((options.delimiter, options.quote)),
                header: options.names.is_none(),
            },
        }
    }

    /// Whether every line end is the end of a record, so that a file can be split at any of them.
    pub(super) fn is_lines(self) -> bool {
        self.quotes.is_none()
    }

    pub(super) fn splitter(self) -> Splitter {
        Splitter { quotes: self.quotes, scanned: 0, quoted: false, closed: None }
    }
}

/// The next record in a window of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Framed {
    /// Its bytes, without the line end.
    pub(super) length: usize,
    /// With the line end.
    pub(super) consumed: usize,
}

/// Finds records in a window that grows; what was looked at is not looked at again.
#[derive(Debug)]
pub(super) struct Splitter {
    quotes: Option<(u8, u8)>,
    /// All of these are relative to the start of the present record.
    scanned: usize,
    quoted: bool,
    closed: Option<usize>,
}

impl Splitter {
    /// The record that begins at the start of the window, if its line end is in it; else to be called again with a longer one.
    #[inline]
    pub(super) fn next(&mut self, window: &[u8]) -> Option<Framed> {
        let Some((delimiter, quote)) = self.quotes else {
            let end = memchr::memchr(b'\n', &window[self.scanned..]);
            return match end {
                Some(end) => Some(self.framed(window, self.scanned + end)),
                None => {
                    self.scanned = window.len();
                    None
                }
            };
        };
        while let Some(found) = memchr::memchr2(b'\n', quote, &window[self.scanned..]) {
            let at = self.scanned + found;
            self.scanned = at + 1;
            if window[at] == b'\n' {
                if !self.quoted {
                    return Some(self.framed(window, at));
                }
            } else if self.quoted {
                self.quoted = false;
                self.closed = Some(at);
            } else {
                // Right after a closing quote it is the second half of a doubled one.
                let doubled = at > 0 && self.closed == Some(at - 1);
                self.quoted = doubled || at == 0 || window[at - 1] == delimiter;
            }
        }
        self.scanned = window.len();
        None
    }

    /// What is left at the end of the file: a last line without a line end is a record.
    pub(super) fn rest(&mut self, window: &[u8]) -> Option<Framed> {
        self.reset();
        (!window.is_empty()).then_some(Framed { length: window.len(), consumed: window.len() })
    }

    /// Forgets the present record.
    pub(super) fn reset(&mut self) {
        (self.scanned, self.quoted, self.closed) = (0, false, None);
    }

    #[inline]
    fn framed(&mut self, window: &[u8], line_end: usize) -> Framed {
        self.reset();
        let length = line_end - usize::from(line_end > 0 && window[line_end - 1] == b'\r');
        Framed { length, consumed: line_end + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CsvOptions;
    use crate::random::Random;

    fn split(framing: Framing, text: &[u8], mut grow_by: impl FnMut() -> usize) -> Vec<Vec<u8>> {
        let (mut splitter, mut records, mut start, mut seen) = (framing.splitter(), Vec::new(), 0, 0);
        loop {
            let next = splitter.next(&text[start..seen]);
            let next = if next.is_none() && seen == text.len() { splitter.rest(&text[start..]) } else { next };
            match next {
                Some(framed) => {
                    records.push(text[start..start + framed.length].to_vec());
                    start += framed.consumed;
                }
                None if seen == text.len() => return records,
                None => seen = text.len().min(seen + grow_by()),
            }
        }
    }

    #[test]
    fn records_are_those_of_a_naive_split() {
        let seed = Random::seed_for_tests();
        let mut random = Random::new(seed);
        for round in 0..2000 {
            let length = random.below(60) as usize;
            let text: Vec<u8> = (0..length).map(|_| b"a,\"\n\r\n"[random.below(6) as usize]).collect();
            let mut naive: Vec<Vec<u8>> = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            let last = naive.pop().filter(|last| !last.is_empty());
            naive.iter_mut().filter(|line| line.last() == Some(&b'\r')).for_each(|line| line.truncate(line.len() - 1));
            naive.extend(last);
            let found = split(Framing::of(&Format::Lines), &text, || 1 + random.below(5) as usize);
            assert_eq!(found, naive, "seed {seed}, round {round}: {:?}", String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn quoted_line_ends_are_those_of_csv_core() {
        let seed = Random::seed_for_tests();
        let mut random = Random::new(seed);
        for round in 0..5000 {
            let length = random.below(40) as usize;
            let text: Vec<u8> = (0..length).map(|_| b"ab,\"\"\n"[random.below(6) as usize]).collect();
            let found = split(Framing::of(&Format::Csv(CsvOptions::default())), &text, || 1 + random.below(5) as usize);
            // csv-core knows no blank lines, and gives the cells unescaped: their number and where they end is compared.
            let found = found.iter().filter(|record| !record.is_empty()).count();
            let mut reader = csv_core::Reader::new();
            let (mut rest, mut count) = (&text[..], 0);
            loop {
                let (result, used, _, _) = reader.read_record(rest, &mut [0; 64], &mut [0; 64]);
                rest = &rest[used..];
                match result {
                    csv_core::ReadRecordResult::Record => count += 1,
                    csv_core::ReadRecordResult::End => break,
                    _ => {}
                }
            }
            assert_eq!(found, count, "seed {seed}, round {round}: {:?}", String::from_utf8_lossy(&text));
        }
    }
}
