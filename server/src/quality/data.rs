//! Labelled prompts: from files, or the project's own.
//!
//! A file holds one JSON object a line, UTF-8, plain or gzip (told from its first bytes, not from its
//! name). Fields that are not named here are ignored.
//! - pairs: `{"a": text, "b": text, "label": 1 | 0, "kind"?: text}`; 1: the two may share one answer.
//! - clusters: `{"text": text, "cluster": text | number}`; texts of one cluster may share an answer.
//!
//! A row that cannot be read is an error with the file and the line: a benchmark on half a file is a
//! benchmark on other data. Rows are read one at a time, and no row is longer than [`ROW_LIMIT`].
//!
//! Without a file the golden prompts are read: those that the tests of this project run on.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use askonce::decision::DecisionRecord;
use flate2::read::MultiGzDecoder;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Longest row that is read, in bytes.
const ROW_LIMIT: u64 = 1 << 20;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Where rows came from, as a report states it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Source {
    /// The file's name without its folder, or `golden`.
    pub(crate) name: String,
    /// SHA-256 of the file as it is on disk; `None` for the golden prompts.
    pub(crate) sha256: Option<String>,
    /// Rows read.
    pub(crate) rows: usize,
}

/// Two prompts that may share one answer, or may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) a: String,
    pub(crate) b: String,
    pub(crate) same: bool,
    /// What the pair is an example of, where the data says so.
    pub(crate) kind: Option<String>,
}

/// A prompt and the name of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Labelled {
    pub(crate) text: String,
    pub(crate) cluster: String,
}

/// Rows of one source.
#[derive(Clone, Debug)]
pub(crate) struct Dataset<T> {
    pub(crate) source: Source,
    pub(crate) rows: Vec<T>,
}

#[derive(Deserialize)]
struct PairRow {
    a: String,
    b: String,
    label: u8,
    #[serde(default)]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct ClusterRow {
    text: String,
    cluster: ClusterId,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ClusterId {
    Number(u64),
    Name(String),
}

/// Reads a file of labelled pairs.
///
/// # Errors
/// The file cannot be read, holds no row, or a row is not as described; with file and line.
pub(crate) fn pairs(path: &Path) -> Result<Dataset<Pair>> {
    read(path, |row: PairRow| {
        let same = match row.label {
            0 => false,
            1 => true,
            other => bail!("`label` is {other}, not 0 or 1"),
        };
        ensure!(!row.a.trim().is_empty(), "`a` is empty");
        ensure!(!row.b.trim().is_empty(), "`b` is empty");
        Ok(Pair {
            a: row.a,
            b: row.b,
            same,
            kind: row.kind,
        })
    })
}

/// Reads a file of texts with the name of their cluster.
///
/// # Errors
/// The file cannot be read, holds no row, or a row is not as described; with file and line.
pub(crate) fn clusters(path: &Path) -> Result<Dataset<Labelled>> {
    read(path, |row: ClusterRow| {
        ensure!(!row.text.trim().is_empty(), "`text` is empty");
        let cluster = match row.cluster {
            ClusterId::Number(number) => number.to_string(),
            ClusterId::Name(name) => name,
        };
        ensure!(!cluster.is_empty(), "`cluster` is empty");
        Ok(Labelled {
            text: row.text,
            cluster,
        })
    })
}

/// Reads a log of decisions.
///
/// # Errors
/// As [`pairs`].
pub(crate) fn decisions(path: &Path) -> Result<Dataset<DecisionRecord>> {
    read(path, Ok)
}

/// Reads a file of what a reader said of pairs, row by row.
///
/// # Errors
/// As [`pairs`].
pub(crate) fn verdicts<R: DeserializeOwned, T>(
    path: &Path,
    accept: impl Fn(R) -> Result<T>,
) -> Result<Vec<T>> {
    Ok(read(path, accept)?.rows)
}

/// Rows of either kind.
#[derive(Clone, Debug)]
pub(crate) enum Rows {
    Pairs(Vec<Pair>),
    Clusters(Vec<Labelled>),
}

/// Reads a file of pairs or of clusters: the fields of its first row tell which.
///
/// # Errors
/// As [`pairs`] and [`clusters`].
pub(crate) fn labelled(path: &Path) -> Result<(Source, Rows)> {
    if holds_clusters(path)? {
        let Dataset { source, rows } = clusters(path)?;
        Ok((source, Rows::Clusters(rows)))
    } else {
        let Dataset { source, rows } = pairs(path)?;
        Ok((source, Rows::Pairs(rows)))
    }
}

/// Whether the first row has a `cluster`.
fn holds_clusters(path: &Path) -> Result<bool> {
    let shown = path.display();
    let failed = || format!("failed to read {shown}");
    let file = File::open(path).with_context(|| format!("failed to open {shown}"))?;
    let mut raw = BufReader::new(file);
    let gzip = raw
        .fill_buf()
        .with_context(failed)?
        .starts_with(&GZIP_MAGIC);
    let mut reader: Box<dyn BufRead> = if gzip {
        Box::new(BufReader::new(MultiGzDecoder::new(raw)))
    } else {
        Box::new(raw)
    };
    let mut line = Vec::new();
    while line.trim_ascii().is_empty() {
        line.clear();
        let read = Read::take(&mut *reader, ROW_LIMIT).read_until(b'\n', &mut line);
        if read.with_context(failed)? == 0 {
            bail!("{shown} holds no row");
        }
    }
    // A row that is no JSON is refused, with its place, by whoever reads all rows.
    let row: serde_json::Value = serde_json::from_slice(&line).unwrap_or_default();
    Ok(row.get("cluster").is_some())
}

fn read<R: DeserializeOwned, T>(
    path: &Path,
    accept: impl Fn(R) -> Result<T>,
) -> Result<Dataset<T>> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("failed to open {shown}"))?;
    let hasher = Arc::new(Mutex::new(Sha256::new()));
    let mut raw = BufReader::new(Hashing {
        inner: file,
        hasher: Arc::clone(&hasher),
    });
    let start = raw
        .fill_buf()
        .with_context(|| format!("failed to read {shown}"))?;
    let gzip = start.starts_with(&GZIP_MAGIC);
    let rows = if gzip {
        let mut unzipped = BufReader::new(MultiGzDecoder::new(&mut raw));
        rows(&mut unzipped, &shown.to_string(), accept)?
    } else {
        rows(&mut raw, &shown.to_string(), accept)?
    };
    // Whatever the decoder left unread is part of the file, and of its hash.
    io::copy(&mut raw, &mut io::sink()).with_context(|| format!("failed to read {shown}"))?;
    let digest = hasher
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
        .finalize();
    let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let name = path
        .file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned();
    let source = Source {
        name,
        sha256: Some(sha256),
        rows: rows.len(),
    };
    Ok(Dataset { source, rows })
}

fn rows<R: DeserializeOwned, T>(
    reader: &mut dyn BufRead,
    shown: &str,
    accept: impl Fn(R) -> Result<T>,
) -> Result<Vec<T>> {
    let mut rows = Vec::new();
    let mut line = Vec::new();
    for number in 1_usize.. {
        let at = || format!("{shown}:{number}");
        line.clear();
        let read = Read::take(&mut *reader, ROW_LIMIT + 1).read_until(b'\n', &mut line);
        if read.with_context(at)? == 0 {
            break;
        }
        if line.len() as u64 > ROW_LIMIT {
            bail!("{}: the row is longer than {ROW_LIMIT} bytes", at());
        }
        let text = std::str::from_utf8(&line)
            .map_err(|error| anyhow::anyhow!("not UTF-8 from byte {}", error.valid_up_to()))
            .with_context(at)?;
        if text.trim().is_empty() {
            continue;
        }
        let row = serde_json::from_str(text)
            .map_err(|error| reason(&error))
            .with_context(at)?;
        rows.push(accept(row).with_context(at)?);
    }
    ensure!(!rows.is_empty(), "{shown} holds no row");
    Ok(rows)
}

/// What serde says is wrong, without its line, which is always 1 here.
fn reason(error: &serde_json::Error) -> anyhow::Error {
    let text = error.to_string();
    let cut = text.rfind(" at line ").unwrap_or(text.len());
    anyhow::anyhow!("{} (column {})", &text[..cut], error.column())
}

/// Hashes what is read through it.
struct Hashing {
    inner: File,
    hasher: Arc<Mutex<Sha256>>,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .update(&buffer[..read]);
        Ok(read)
    }
}

macro_rules! golden_pairs {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../tests/golden/", $name, ".toml")))),*]
    };
}

/// The golden pairs, one file a kind.
const GOLDEN_PAIRS: &[(&str, &str)] = golden_pairs![
    "antonym",
    "code_flag",
    "comparison",
    "constraint",
    "date",
    "entity",
    "language",
    "literal",
    "long_prompt",
    "negation",
    "number",
    "output_format",
    "paraphrase",
    "pronoun_followup",
    "role_swap",
    "scope_of_question",
    "similar_topic",
    "support_paraphrase",
    "surface",
    "unit",
    "unrelated",
];

const GOLDEN_CLUSTERS: &str = include_str!("../../../tests/golden/clusters.toml");

#[derive(Deserialize)]
struct GoldenPairs {
    pair: Vec<GoldenPair>,
}

#[derive(Deserialize)]
struct GoldenPair {
    a: String,
    b: String,
    label: GoldenLabel,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum GoldenLabel {
    Same,
    Different,
}

#[derive(Deserialize)]
struct GoldenClusters {
    distractors: Vec<String>,
    cluster: Vec<GoldenCluster>,
}

#[derive(Deserialize)]
struct GoldenCluster {
    id: String,
    texts: Vec<String>,
}

/// The project's own pairs.
///
/// # Errors
/// A file in the source tree is not as described; found by a test before it can reach a user.
pub(crate) fn golden_pairs() -> Result<Dataset<Pair>> {
    let mut rows = Vec::new();
    for (kind, text) in GOLDEN_PAIRS {
        let file: GoldenPairs =
            toml::from_str(text).with_context(|| format!("tests/golden/{kind}.toml"))?;
        rows.extend(file.pair.into_iter().map(|pair| Pair {
            a: pair.a,
            b: pair.b,
            same: matches!(pair.label, GoldenLabel::Same),
            kind: Some((*kind).to_owned()),
        }));
    }
    Ok(Dataset {
        source: golden_source(rows.len()),
        rows,
    })
}

/// The project's own clusters, each distractor a cluster of its own.
///
/// # Errors
/// The file in the source tree is not as described; found by a test before it can reach a user.
pub(crate) fn golden_clusters() -> Result<Dataset<Labelled>> {
    let file: GoldenClusters =
        toml::from_str(GOLDEN_CLUSTERS).context("tests/golden/clusters.toml")?;
    let mut rows = Vec::new();
    for cluster in file.cluster {
        let id = cluster.id;
        let labelled = |text| Labelled {
            text,
            cluster: id.clone(),
        };
        rows.extend(cluster.texts.into_iter().map(labelled));
    }
    for (i, text) in file.distractors.into_iter().enumerate() {
        rows.push(Labelled {
            text,
            cluster: format!("distractor:{i}"),
        });
    }
    Ok(Dataset {
        source: golden_source(rows.len()),
        rows,
    })
}

fn golden_source(rows: usize) -> Source {
    Source {
        name: "golden".to_owned(),
        sha256: None,
        rows,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    const PAIRS: &[u8] =
        b"{\"a\":\"x\",\"b\":\"y\",\"label\":1,\"kind\":\"k\",\"score\":0.9}\n\n{\"a\":\"x\",\"b\":\"z\",\"label\":0}";

    fn refusal(bytes: &[u8]) -> String {
        let file = file(bytes);
        let error = format!("{:#}", pairs(file.path()).unwrap_err());
        error.replace(&file.path().display().to_string(), "FILE")
    }

    #[test]
    fn plain_and_gzip_hold_the_same_rows() {
        let plain = pairs(file(PAIRS).path()).unwrap();
        let packed = pairs(file(&gzip(PAIRS)).path()).unwrap();
        assert_eq!(plain.rows, packed.rows);
        assert_eq!(plain.rows.len(), 2);
        assert_eq!(plain.rows[0].kind.as_deref(), Some("k"));
        assert!(plain.rows[0].same && !plain.rows[1].same);
        assert_ne!(plain.source.sha256, packed.source.sha256);
    }

    #[test]
    fn the_hash_is_that_of_the_file() {
        let read = pairs(file(PAIRS).path()).unwrap();
        let expected: String = Sha256::digest(PAIRS)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(read.source.sha256, Some(expected));
    }

    #[test]
    fn gzip_files_one_after_the_other_are_one_file() {
        let mut both = gzip(b"{\"a\":\"x\",\"b\":\"y\",\"label\":1}\n");
        both.extend(gzip(b"{\"a\":\"u\",\"b\":\"v\",\"label\":0}\n"));
        assert_eq!(pairs(file(&both).path()).unwrap().rows.len(), 2);
    }

    #[test]
    fn a_bad_row_is_named_with_file_and_line() {
        let good = "{\"a\":\"x\",\"b\":\"y\",\"label\":1}\n";
        for (bad, expected) in [
            (
                "{\"a\":\"x\",\"b\":\"y\",\"label\":2}",
                "FILE:2: `label` is 2, not 0 or 1",
            ),
            (
                "{\"a\":\"x\",\"label\":1}",
                "FILE:2: missing field `b` (column 19)",
            ),
            (
                "{\"a\":\"x\",\"b\":\" \",\"label\":1}",
                "FILE:2: `b` is empty",
            ),
            ("{\"a\":\"x\",", "FILE:2: EOF while parsing"),
            ("[]", "FILE:2: invalid length 0"),
        ] {
            let error = refusal(format!("{good}{bad}\n{good}").as_bytes());
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_named_too() {
        assert_eq!(
            refusal(b"{\"a\":\"\xff\"}\n"),
            "FILE:1: not UTF-8 from byte 6"
        );
    }

    #[test]
    fn nothing_to_read_is_an_error() {
        assert_eq!(refusal(b""), "FILE holds no row");
        assert_eq!(refusal(b"\n\n"), "FILE holds no row");
        assert_eq!(refusal(&gzip(b"")), "FILE holds no row");
    }

    #[test]
    fn a_torn_gzip_file_is_an_error() {
        let packed = gzip(PAIRS);
        assert!(refusal(&packed[..packed.len() - 12]).starts_with("FILE:"));
    }

    #[test]
    fn an_endless_row_is_refused() {
        let row = vec![b' '; ROW_LIMIT as usize + 10];
        assert!(refusal(&row).contains("longer than"));
    }

    #[test]
    fn cluster_names_may_be_numbers() {
        let rows = b"{\"text\":\"x\",\"cluster\":7}\n{\"text\":\"y\",\"cluster\":\"7\"}\n";
        let read = clusters(file(rows).path()).unwrap();
        assert_eq!(read.rows[0].cluster, read.rows[1].cluster);
    }

    #[test]
    fn the_first_row_tells_pairs_from_clusters() {
        let clusters = gzip(b"\n{\"text\":\"x\",\"cluster\":7}\n");
        let (_, rows) = labelled(file(&clusters).path()).unwrap();
        assert!(matches!(rows, Rows::Clusters(rows) if rows.len() == 1));
        let (source, rows) = labelled(file(PAIRS).path()).unwrap();
        assert!(matches!(rows, Rows::Pairs(rows) if rows.len() == source.rows));
        assert!(labelled(file(b"").path()).is_err());
    }

    #[test]
    fn the_golden_prompts_are_readable() {
        let pairs = golden_pairs().unwrap();
        assert!(pairs.rows.iter().any(|pair| pair.same));
        assert!(pairs.rows.iter().any(|pair| !pair.same));
        assert!(golden_clusters().unwrap().rows.len() > 100);
    }
}
