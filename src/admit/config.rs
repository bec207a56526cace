//! The settings of admission.

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::Admission;
use crate::entry::MOST_PRINCIPALS;
use crate::error::{Error, ErrorKind, Result};

/// The largest text that is looked through.
const MOST_BYTES: u64 = 64 << 20;

/// Patterns of a deployment's own, whose names are metric labels.
const MOST_PATTERNS: usize = 64;

/// What may be kept, and how far it is shared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct AdmissionConfig {
    /// What is looked for in a request's texts and in its answer; what has it is not stored. Default:
    /// `[secrets]`. Add kinds of personal data where answers are shared between people.
    pub detectors: Vec<Detector>,
    /// Patterns of your own to look for, beside `detectors`. At most 64. Default: none.
    pub patterns: Vec<PatternConfig>,
    /// Whether short answers that read like a refusal ("I'm sorry, but I can't help with that") are left out,
    /// in twelve languages. Default: true. What a provider marks as a refusal is left out either way.
    pub refusal_texts: bool,
    /// Tools whose calls may be answered from the cache: names, in which `*` stands for any text. Default:
    /// none. An answer that calls any other tool is not stored, since whoever gets it calls the tool again.
    pub safe_tools: Vec<String>,
    /// The most bytes of text in a request whose answer is stored. Default: `16MiB`; 1 byte to 64 MiB.
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Bytes"))]
    pub max_prompt_bytes: ByteSize,
    /// The most bytes of an answer that is stored. Default: `4MiB`; 1 byte to 64 MiB.
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Bytes"))]
    pub max_answer_bytes: ByteSize,
    /// In a scope of several principals: how many must have asked exactly this before the answer serves
    /// others by similarity. From 1 to 8. Default: 1. Raise it where a principal could plant answers, such
    /// as users of one public scope; it costs hits until questions are asked again. Answers that an admin
    /// approved (`askonce warm --approve`) are served at once.
    pub min_principals: usize,
    /// What each principal may store.
    pub quota: QuotaConfig,
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self {
            detectors: vec![Detector::Secrets],
            patterns: Vec::new(),
            refusal_texts: true,
            safe_tools: Vec::new(),
            max_prompt_bytes: ByteSize::mib(16),
            max_answer_bytes: ByteSize::mib(4),
            min_principals: 1,
            quota: QuotaConfig::default(),
        }
    }
}

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Detector {
    /// All of the secrets: `api_key` to `bearer_token`.
    Secrets,
    /// API keys in the shapes of common providers, or assigned to something called a key.
    ApiKey,
    /// Private keys in PEM, OpenPGP, OpenSSH or PuTTY form.
    PrivateKey,
    /// JSON web tokens.
    Jwt,
    /// Keys of AWS.
    AwsKey,
    /// Keys and tokens of Google Cloud.
    GcpKey,
    /// Tokens of GitHub.
    GithubToken,
    /// Tokens and webhooks of Slack.
    SlackToken,
    /// Secret keys of Stripe.
    StripeKey,
    /// A password in a URL.
    UrlPassword,
    /// A bearer token, or a user and password in an `Authorization` header.
    BearerToken,
    /// E-mail addresses, but for those reserved for examples.
    Email,
    /// Phone numbers: international ones, and ten digits in groups.
    Phone,
    /// Numbers of payment cards whose check digit is right.
    CreditCard,
    /// International bank account numbers whose check digits are right.
    Iban,
    /// Social security numbers of the United States.
    Ssn,
    /// Public IP addresses.
    Ip,
}

impl Detector {
    /// What `secrets` stands for.
    pub(super) const SECRETS: [Self; 10] = [
        Self::ApiKey,
        Self::PrivateKey,
        Self::Jwt,
        Self::AwsKey,
        Self::GcpKey,
        Self::GithubToken,
        Self::SlackToken,
        Self::StripeKey,
        Self::UrlPassword,
        Self::BearerToken,
    ];

    /// The stable name used in settings and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secrets => "secrets",
            Self::ApiKey => "api_key",
            Self::PrivateKey => "private_key",
            Self::Jwt => "jwt",
            Self::AwsKey => "aws_key",
            Self::GcpKey => "gcp_key",
            Self::GithubToken => "github_token",
            Self::SlackToken => "slack_token",
            Self::StripeKey => "stripe_key",
            Self::UrlPassword => "url_password",
            Self::BearerToken => "bearer_token",
            Self::Email => "email",
            Self::Phone => "phone",
            Self::CreditCard => "credit_card",
            Self::Iban => "iban",
            Self::Ssn => "ssn",
            Self::Ip => "ip",
        }
    }
}

/// A pattern of a deployment's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PatternConfig {
    /// Its name in metrics: 1 to 32 lower-case letters, digits and underscores.
    pub name: String,
    /// A regular expression in the syntax of the crate `regex`: without look-around and back-references.
    pub regex: String,
    /// What it finds, which is the reason that is told. Default: `personal_data`.
    #[serde(default)]
    pub kind: PatternKind,
}

/// What a pattern finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PatternKind {
    /// A key, a password, a token.
    Secret,
    /// What tells of a person.
    #[default]
    PersonalData,
}

/// What each principal may store: a key that is listed, otherwise a scope as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct QuotaConfig {
    /// Answers that a principal may store in an hour, from 1 to 1,000,000. Default: `null`, no bound. As many
    /// may come at once; after that they come back one by one.
    pub stores_per_hour: Option<u32>,
    /// Bytes of prompts and answers that a principal's live entries may take, as stored since this process
    /// began. Default: `null`, no bound. At least 1 KiB.
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::schema::Bytes>"))]
    pub bytes: Option<ByteSize>,
}

impl AdmissionConfig {
    /// Checks every field; `path` is where this section stands in the file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the field, its value and what is allowed.
    pub fn validate(&self, path: &str) -> Result<()> {
        Admission::at(path, self).map(drop)
    }

    pub(super) fn check_ranges(&self, path: &str) -> Result<()> {
        let range = |field: &str, value: &dyn std::fmt::Display, allowed: &str| {
            Error::new(ErrorKind::Config, "a setting of admission is out of range")
                .with("field", format_args!("{path}.{field}"))
                .with("value", value)
                .with("allowed", allowed)
        };
        for (field, value) in [
            ("max_prompt_bytes", self.max_prompt_bytes),
            ("max_answer_bytes", self.max_answer_bytes),
        ] {
            if !(1..=MOST_BYTES).contains(&value.as_u64()) {
                return Err(range(field, &value, "1B to 64MiB"));
            }
        }
        if !(1..=MOST_PRINCIPALS).contains(&self.min_principals) {
            let allowed = format!("1 to {MOST_PRINCIPALS}");
            return Err(range("min_principals", &self.min_principals, &allowed));
        }
        if self.patterns.len() > MOST_PATTERNS {
            let allowed = format!("at most {MOST_PATTERNS}");
            return Err(range("patterns", &self.patterns.len(), &allowed));
        }
        if let Some(stores) = self.quota.stores_per_hour
            && !(1..=1_000_000).contains(&stores)
        {
            return Err(range("quota.stores_per_hour", &stores, "1 to 1000000"));
        }
        if let Some(bytes) = self.quota.bytes
            && bytes.as_u64() < 1 << 10
        {
            return Err(range("quota.bytes", &bytes, "at least 1KiB"));
        }
        if let Some(i) = self
            .safe_tools
            .iter()
            .position(|tool| tool.trim().is_empty())
        {
            let field = format!("safe_tools[{i}]");
            return Err(range(
                &field,
                &"",
                "the name of a tool, or a pattern with *",
            ));
        }
        Ok(())
    }
}
