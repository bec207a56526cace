//! A graph with its tokenizer: text in, tensors out.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use ort::logging::LogLevel;
use ort::session::{Session, SessionInputValue};
use ort::value::{Outlet, Tensor, TensorElementType, ValueType};
use tokenizers::{EncodeInput, Encoding, Tokenizer};

use super::{OnnxModel, library};
use crate::ModelError;

/// Names that tokenizers give to the token of words that they do not know.
const UNKNOWN: [&str; 3] = ["[UNK]", "<unk>", "<|unk|>"];

/// A text for [`Graph::probe`]; what it says does not matter.
const PROBE: &str = "a";

/// What an input of the graph is filled with.
#[derive(Clone, Copy)]
enum Role {
    Ids,
    Mask,
    Types,
    Positions,
}

struct Input {
    name: String,
    role: Role,
    /// Whether it takes numbers of 64 bits; of 32 otherwise.
    wide: bool,
}

/// An output, as the graph describes it.
pub(super) struct Output {
    pub(super) name: String,
    /// How many axes it has, as far as the file says.
    pub(super) axes: usize,
}

/// A tensor that the graph returned.
pub(super) struct Rows {
    pub(super) shape: Vec<usize>,
    pub(super) data: Vec<f32>,
}

pub(super) struct Graph {
    /// The file's name and the beginning of its digest.
    pub(super) name: String,
    /// The beginning of the digest of graph, weights and tokenizer.
    pub(super) revision: String,
    pub(super) outputs: Vec<Output>,
    tokenizer: Tokenizer,
    unknown: HashSet<u32>,
    max_tokens: usize,
    inputs: Vec<Input>,
    sessions: Vec<Mutex<Session>>,
    next: AtomicUsize,
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph")
            .field("name", &self.name)
            .field("revision", &self.revision)
            .field("max_tokens", &self.max_tokens)
            .field("sessions", &self.sessions.len())
            .finish_non_exhaustive()
    }
}

impl Graph {
    /// # Errors
    /// [`ModelError::Config`] naming the setting, [`ModelError::UnreadableWeights`] and
    /// [`ModelError::BadWeights`] naming the file.
    pub(super) fn open(model: &OnnxModel) -> Result<Self, ModelError> {
        for (field, value) in [
            ("max_tokens", model.max_tokens),
            ("threads", model.threads),
            ("sessions", model.sessions),
        ] {
            if value == 0 {
                let reason = "it is 0, and must be at least 1".to_owned();
                return Err(ModelError::Config { field, reason });
            }
        }
        let revision = revision(model)?;
        let tokenizer = read_tokenizer(&model.tokenizer)?;
        library::load(model.library.as_deref())?;
        let sessions: Vec<_> = (0..model.sessions)
            .map(|_| session(model).map(Mutex::new))
            .collect::<Result<_, _>>()?;
        let bad = |reason| bad_file(&model.path, reason);
        let (inputs, outputs) = {
            let first = sessions
                .first()
                .ok_or_else(|| bad("no session".to_owned()))?;
            let first = lock(first);
            let inputs = first.inputs().iter().map(read_input);
            let inputs: Vec<_> = inputs.collect::<Result<_, _>>().map_err(bad)?;
            (
                inputs,
                first.outputs().iter().filter_map(read_output).collect(),
            )
        };
        if !inputs.iter().any(|input| matches!(input.role, Role::Ids)) {
            return Err(bad("it has no input `input_ids`".to_owned()));
        }
        let unknown = UNKNOWN
            .iter()
            .filter_map(|name| tokenizer.token_to_id(name));
        let stem = model.path.file_stem().unwrap_or_default();
        Ok(Self {
            name: stem.to_string_lossy().into_owned(),
            revision,
            outputs,
            unknown: unknown.collect(),
            tokenizer,
            max_tokens: model.max_tokens,
            inputs,
            sessions,
            next: AtomicUsize::new(0),
        })
    }

    /// Most tokens of a text, those that frame it included.
    pub(super) fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// How many texts are worked on at the same time.
    pub(super) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// The tokens of a text or of a pair. `position` is for the error.
    ///
    /// # Errors
    /// [`ModelError::InputTooLong`]; [`ModelError::NoTokens`] where all there is are tokens that frame a text
    /// and unknown words.
    pub(super) fn encode<'s>(
        &self,
        input: impl Into<EncodeInput<'s>>,
        position: usize,
    ) -> Result<Encoding, ModelError> {
        let encoding = self.tokenizer.encode_fast(input, true);
        let encoding = encoding.map_err(|error| self.failed(&error))?;
        if encoding.len() > self.max_tokens {
            return Err(ModelError::InputTooLong {
                position,
                limit: self.max_tokens,
                model: self.name.clone(),
            });
        }
        Ok(encoding)
    }

    /// Whether a text has a word that the model knows.
    ///
    /// # Errors
    /// [`ModelError::Failed`] when the tokenizer fails.
    pub(super) fn knows(&self, text: &str) -> Result<bool, ModelError> {
        let encoding = self.tokenizer.encode_fast(text, false);
        let encoding = encoding.map_err(|error| self.failed(&error))?;
        let ids = encoding.get_ids();
        Ok(ids.iter().any(|id| !self.unknown.contains(id)))
    }

    /// What the graph returns for one text, and for one of as many tokens as it may get.
    ///
    /// # Errors
    /// [`ModelError::Config`] naming `max_tokens` when the longest text fails.
    pub(super) fn probe(&self, output: &str) -> Result<(usize, Rows), ModelError> {
        let encoding = self.encode(PROBE, 0)?;
        let rows = self.run(&encoding, output)?;
        let token = encoding.get_ids().first().copied().unwrap_or(0);
        let longest = vec![token; self.max_tokens];
        let types = vec![0; self.max_tokens];
        if let Err(error) = self.run_ids(&longest, &types, output) {
            return Err(ModelError::Config {
                field: "max_tokens",
                reason: format!(
                    "the model does not read {} tokens ({error}): set as many as its card says",
                    self.max_tokens
                ),
            });
        }
        Ok((encoding.len(), rows))
    }

    /// One output of the graph for one text.
    ///
    /// # Errors
    /// [`ModelError::Failed`].
    pub(super) fn run(&self, encoding: &Encoding, output: &str) -> Result<Rows, ModelError> {
        self.run_ids(encoding.get_ids(), encoding.get_type_ids(), output)
    }

    fn run_ids(&self, ids: &[u32], types: &[u32], output: &str) -> Result<Rows, ModelError> {
        let failed = |error: ort::Error| self.failed(&error);
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            let numbers = |i: usize| match input.role {
                Role::Ids => ids[i],
                Role::Mask => 1,
                Role::Types => types.get(i).copied().unwrap_or(0),
                // A text has far fewer tokens.
                Role::Positions => u32::try_from(i).unwrap_or(u32::MAX),
            };
            let tensor = tensor(input.wide, ids.len(), numbers).map_err(failed)?;
            inputs.push((input.name.as_str(), tensor));
        }
        let mut session = self.session();
        let returned = session.run(inputs).map_err(failed)?;
        let tensor = returned
            .get(output)
            .ok_or_else(|| self.failed(&format!("it returned no output `{output}`")))?;
        let (shape, data) = tensor.try_extract_tensor::<f32>().map_err(failed)?;
        let shape = shape.iter().map(|&axis| usize::try_from(axis).unwrap_or(0));
        Ok(Rows {
            shape: shape.collect(),
            data: data.to_vec(),
        })
    }

    /// A session that is free, or the next in turn.
    fn session(&self) -> MutexGuard<'_, Session> {
        for session in &self.sessions {
            match session.try_lock() {
                Ok(session) => return session,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.sessions.len();
        lock(&self.sessions[turn])
    }

    /// The error for what the runtime or the graph did.
    pub(super) fn failed(&self, reason: &dyn fmt::Display) -> ModelError {
        ModelError::Failed {
            model: self.name.clone(),
            reason: reason.to_string(),
        }
    }

    /// The names of the outputs, for errors.
    pub(super) fn output_names(&self) -> String {
        let names: Vec<_> = self
            .outputs
            .iter()
            .map(|o| format!("`{}`", o.name))
            .collect();
        names.join(", ")
    }

    /// The output of that name, or of the usual names the first, or the only one of so many axes.
    ///
    /// # Errors
    /// [`ModelError::Config`] naming `output`.
    pub(super) fn output(
        &self,
        wanted: Option<&str>,
        usual: &[&str],
        axes: usize,
    ) -> Result<String, ModelError> {
        let no = |reason: String| {
            Err(ModelError::Config {
                field: "output",
                reason,
            })
        };
        if let Some(wanted) = wanted {
            return match self.outputs.iter().find(|output| output.name == wanted) {
                Some(output) => Ok(output.name.clone()),
                None => no(format!(
                    "the model has no output `{wanted}` of 32-bit floats; it has {}",
                    self.output_names()
                )),
            };
        }
        let fits = |output: &&Output| output.axes == axes;
        let fitting: Vec<_> = self.outputs.iter().filter(fits).collect();
        let named = usual
            .iter()
            .find_map(|name| fitting.iter().find(|output| output.name == *name));
        match (named, &fitting[..]) {
            (Some(output), _) => Ok(output.name.clone()),
            (None, [output]) => Ok(output.name.clone()),
            (None, []) => no(format!(
                "the model has no output of 32-bit floats with {axes} axes, which the other settings ask for; it \
                 has {}",
                self.output_names()
            )),
            (None, _) => no(format!(
                "several outputs fit, name one: {}",
                self.output_names()
            )),
        }
    }
}

/// Whether another thread panicked while it held a session says nothing of the session.
fn lock(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tensor(
    wide: bool,
    tokens: usize,
    number: impl Fn(usize) -> u32,
) -> Result<SessionInputValue<'static>, ort::Error> {
    let shape = [1, tokens];
    Ok(if wide {
        let numbers: Vec<i64> = (0..tokens).map(|i| i64::from(number(i))).collect();
        Tensor::from_array((shape, numbers))?.into()
    } else {
        let numbers = (0..tokens).map(|i| i32::try_from(number(i)).unwrap_or(i32::MAX));
        Tensor::from_array((shape, numbers.collect::<Vec<i32>>()))?.into()
    })
}

fn session(model: &OnnxModel) -> Result<Session, ModelError> {
    let configured = || -> ort::Result<Session> {
        Session::builder()?
            .with_intra_threads(model.threads)?
            .with_inter_threads(1)?
            // Threads that wait must not take processors from those that serve.
            .with_intra_op_spinning(false)?
            // What fails is returned, and a warning about a model helps nobody who runs it.
            .with_log_level(LogLevel::Fatal)?
            .commit_from_file(&model.path)
    };
    configured().map_err(|error| bad_file(&model.path, error.to_string()))
}

fn read_input(input: &Outlet) -> Result<Input, String> {
    let name = input.name();
    let role = match name {
        "input_ids" | "ids" => Role::Ids,
        "attention_mask" | "mask" => Role::Mask,
        "token_type_ids" | "segment_ids" => Role::Types,
        "position_ids" => Role::Positions,
        _ => {
            return Err(format!(
                "it has an input `{name}`: only input_ids, attention_mask, token_type_ids and position_ids can be \
                 filled"
            ));
        }
    };
    let ValueType::Tensor { ty, shape, .. } = input.dtype() else {
        return Err(format!("its input `{name}` is no tensor"));
    };
    if let [_, tokens @ (1..)] = shape[..] {
        return Err(format!(
            "its input `{name}` has a fixed length of {tokens}: export the model with dynamic axes"
        ));
    }
    let wide = match ty {
        TensorElementType::Int64 => true,
        TensorElementType::Int32 => false,
        _ => return Err(format!("its input `{name}` takes no integers")),
    };
    Ok(Input {
        name: name.to_owned(),
        role,
        wide,
    })
}

/// An output that can be read.
fn read_output(output: &Outlet) -> Option<Output> {
    match output.dtype() {
        ValueType::Tensor {
            ty: TensorElementType::Float32,
            shape,
            ..
        } => Some(Output {
            name: output.name().to_owned(),
            axes: shape.len(),
        }),
        _ => None,
    }
}

fn read_tokenizer(path: &Path) -> Result<Tokenizer, ModelError> {
    let bytes = std::fs::read(path).map_err(|source| unreadable(path, source))?;
    let mut tokenizer =
        Tokenizer::from_bytes(bytes).map_err(|error| bad_file(path, error.to_string()))?;
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(None)
        .map_err(|error| bad_file(path, error.to_string()))?;
    Ok(tokenizer)
}

/// The beginning of the digest of all that makes the vectors.
fn revision(model: &OnnxModel) -> Result<String, ModelError> {
    let mut hasher = blake3::Hasher::new();
    for path in [&model.path, &model.tokenizer] {
        digest(path, &mut hasher).map_err(|source| unreadable(path, source))?;
    }
    // Where exporters put the weights of larger models.
    for ending in ["_data", ".data"] {
        let mut path = model.path.clone().into_os_string();
        path.push(ending);
        let path = PathBuf::from(path);
        if path.is_file() {
            digest(&path, &mut hasher).map_err(|source| unreadable(&path, source))?;
        }
    }
    Ok(hasher.finalize().to_hex()[..12].to_owned())
}

fn digest(path: &Path, hasher: &mut blake3::Hasher) -> io::Result<()> {
    let file = File::open(path)?;
    hasher.update(&file.metadata()?.len().to_le_bytes());
    hasher.update_reader(file)?;
    Ok(())
}

fn unreadable(path: &Path, source: io::Error) -> ModelError {
    ModelError::UnreadableWeights {
        path: path.to_owned(),
        source,
    }
}

fn bad_file(path: &Path, reason: String) -> ModelError {
    ModelError::BadWeights {
        origin: path.display().to_string(),
        reason,
    }
}
