//! Objects in YAML files: `apiVersion`, `kind`, and fields of their own, read strictly.
//!
//! A mistake says where it is (line, column, field) and what was expected; nothing is guessed, and a field that nobody
//! knows is a mistake too.

use std::{
    fmt::{self, Write},
    fs::{FileType, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_path_to_error::{Segment, Track};
use serde_saphyr::{Location, MessageFormatter, Spanned, UserMessageFormatter};

/// `apiVersion` of every object.
pub const API_VERSION: &str = "sidetrack.dev/v1alpha1";

/// Largest file that is read. A table of 16,384 routes has about 2 MiB; what is far above is not a table.
pub const FILE_MAX: u64 = 16 << 20;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It cannot be read.
    #[error("{}: cannot be read ({source}): check that it is there and that this user may read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It is a directory, a FIFO, a device: nothing that can be read once and again.
    #[error("{}: this is a {what}, expected a regular file: put the {kind} into a file and give that file's path", path.display())]
    NotAFile {
        /// What was given.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// What it should hold.
        kind: &'static str,
    },
    /// It is larger than [`FILE_MAX`].
    #[error("{}: {size} bytes, expected at most {FILE_MAX}: this is not a {kind}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// What it should hold.
        kind: &'static str,
    },
    /// What it says is not valid.
    #[error("{}", Listing { path, mistakes })]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it, at least one.
        mistakes: Vec<Mistake>,
    },
}

/// Something in a file that is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// The field, such as `services[0].routes[1].key`; empty for the whole object.
    pub field: String,
    /// What is wrong, and what was expected.
    pub what: String,
}

impl Mistake {
    /// A mistake in the value that stands at `at`.
    pub fn new(at: Location, field: impl Into<String>, what: impl Into<String>) -> Self {
        Self { line: at.line(), column: at.column(), field: field.into(), what: what.into() }
    }
}

/// One line for each mistake, in the form that editors and terminals make links of.
struct Listing<'a> {
    path: &'a Path,
    mistakes: &'a [Mistake],
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, Mistake { line, column, field, what }) in self.mistakes.iter().enumerate() {
            let newline = if n == 0 { "" } else { "\n" };
            let colon = if field.is_empty() { "" } else { ": " };
            write!(f, "{newline}{}:{line}:{column}: {field}{colon}{what}", self.path.display())?;
        }
        Ok(())
    }
}

/// The beginning of every object.
#[derive(Debug, Deserialize)]
struct Header {
    #[serde(rename = "apiVersion")]
    api_version: Spanned<String>,
    kind: Spanned<String>,
}

/// Reads a file's text, at most [`FILE_MAX`] bytes. It never waits for somebody to write: what is no regular file is not
/// read at all.
pub fn read(path: &Path, kind: &'static str) -> Result<String, DocumentError> {
    let failed = |source| DocumentError::Read { path: path.to_owned(), source };
    let regular = |file: FileType| match special(file) {
        Some(what) => Err(DocumentError::NotAFile { path: path.to_owned(), what, kind }),
        None => Ok(()),
    };
    let too_large = |size| DocumentError::TooLarge { path: path.to_owned(), size, kind };
    // Before it is opened: to open a device may set something off.
    regular(std::fs::metadata(path).map_err(failed)?.file_type())?;
    // It may have become something else by then. Without the flag, to open a FIFO waits for its writer.
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    regular(metadata.file_type())?;
    if metadata.len() > FILE_MAX {
        return Err(too_large(metadata.len()));
    }
    let mut bytes = Vec::new();
    // It may grow while it is read.
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(too_large(bytes.len() as u64));
    }
    text(bytes).map_err(|mistake| DocumentError::Invalid { path: path.to_owned(), mistakes: vec![mistake] })
}

/// The text that these bytes are in UTF-8.
fn text(bytes: Vec<u8>) -> Result<String, Mistake> {
    String::from_utf8(bytes).map_err(|error| {
        let (problem, bytes) = (error.utf8_error(), error.as_bytes());
        let (valid, rest) = bytes.split_at(problem.valid_up_to());
        let valid = String::from_utf8_lossy(valid);
        let line = valid.matches('\n').count() + 1;
        let column = valid.chars().rev().take_while(|&c| c != '\n').count() + 1;
        let what = match rest {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] if valid.is_empty() => {
                "the file is in UTF-16, expected UTF-8: save it in that encoding (iconv -f UTF-16 -t UTF-8)".into()
            }
            _ if problem.error_len().is_none() => {
                "the file ends in the middle of a character: was it written to its end?".into()
            }
            _ => format!(
                "byte 0x{:02x} is not UTF-8: save the file in that encoding (if it is Latin-1: iconv -f ISO-8859-1 -t UTF-8)",
                rest[0] // there is one that was not valid
            ),
        };
        Mistake { line: line as u64, column: column as u64, field: String::new(), what }
    })
}

/// What it is, if it is no regular file.
fn special(file: FileType) -> Option<&'static str> {
    let kinds = [
        (file.is_file(), None),
        (file.is_dir(), Some("directory")),
        (file.is_fifo(), Some("FIFO (a pipe)")),
        (file.is_char_device() || file.is_block_device(), Some("device")),
        (file.is_socket(), Some("socket")),
    ];
    kinds.into_iter().find(|(is, _)| *is).map_or(Some("file of an unknown type"), |(_, what)| what)
}

/// Reads one object of a kind from a text. `T` has `apiVersion` and `kind` among its fields; their values are right when
/// it is returned.
pub fn parse<T: DeserializeOwned>(text: &str, kind: &str) -> Result<T, Vec<Mistake>> {
    // Whatever else is wrong, a file of another kind is a file of another kind.
    if let Ok(header) = one::<Header>(text) {
        let mut mistakes = Vec::new();
        for (field, value, expected) in [("apiVersion", &header.api_version, API_VERSION), ("kind", &header.kind, kind)]
        {
            if value.value != expected {
                let what = format!("{:?}, expected {expected:?}", value.value);
                mistakes.push(Mistake::new(value.referenced, field, what));
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
    }
    one(text).map_err(|mistake| vec![mistake])
}

fn one<T: DeserializeOwned>(text: &str) -> Result<T, Mistake> {
    let options = serde_saphyr::options! { with_snippet: false };
    let mut field = String::new();
    let read = serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        let mut track = Track::new();
        let value = T::deserialize(serde_path_to_error::Deserializer::new(deserializer, &mut track));
        if value.is_err() {
            field = field_name(&track.path());
        }
        value
    });
    read.map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
        let what = match UserMessageFormatter.format_message(error.without_snippet()).as_ref() {
            "expected sequence start" => "expected a list".to_owned(),
            "expected mapping start" => "expected fields, as in `name: value`".to_owned(),
            "expected string scalar" => "expected a text".to_owned(),
            "unexpected end of file" => "nothing stands here, expected an object".to_owned(),
            other => other.to_owned(),
        };
        Mistake { line, column, field, what }
    })
}

/// A path as people write it. [`Spanned`] puts a field `value` of its own before each value, which no file has.
fn field_name(path: &serde_path_to_error::Path) -> String {
    let mut name = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => _ = write!(name, "[{index}]"), // never fails on a string
            Segment::Map { key } if key != "value" => {
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(key);
            }
            _ => {}
        }
    }
    name
}

#[cfg(test)]
mod tests;
