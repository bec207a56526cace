//! The policies that the tools run: the shipped ones, files, baselines, and a policy with a part of its
//! evidence hidden.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use askonce::policy::{
    CalibratedSettings, Decision, Evidence, GuardReport, HitPolicy, PassReason, PolicyConfig,
    PolicyHandle, TextFeatures,
};

/// A policy under the name it has in a report.
#[derive(Clone, Debug)]
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) policy: PolicyHandle,
    /// Wrong answers per request that it promises.
    pub(crate) promised: Option<f64>,
}

impl Contender {
    pub(crate) fn new(name: impl Into<String>, policy: PolicyHandle) -> Self {
        Self {
            name: name.into(),
            policy,
            promised: None,
        }
    }

    /// Whether its numbers were fitted on these embedding spaces, or on none.
    pub(crate) fn fits(&self, spaces: &[String]) -> bool {
        let fitted = self.policy.calibrated_for();
        // Without a second space it decides by the first alone, as it would in a cache.
        fitted
            .iter()
            .zip(spaces)
            .all(|(fitted, space)| fitted == space)
    }

    /// The policy that these settings describe.
    ///
    /// # Errors
    /// They describe none.
    pub(crate) fn of(name: impl Into<String>, config: &PolicyConfig) -> Result<Self> {
        let promised = match config {
            PolicyConfig::Calibrated(settings) => settings.wrong_per_request,
            _ => None,
        };
        Ok(Self {
            promised,
            ..Self::new(name, config.build()?)
        })
    }

    /// What a cache does when nothing is configured.
    ///
    /// # Errors
    /// The default settings are no policy.
    pub(crate) fn by_default() -> Result<Self> {
        Self::of("default", &PolicyConfig::default())
    }

    /// A policy as it is given on a command line: `default`, `calibrated`, `exact_only`, `threshold:0.95`, a
    /// policy file as `askonce calibrate` writes it, or a JSON file with the settings of a policy, as under
    /// `semantic.policy`. What is calibrated takes the promise to run with after an `@`: `calibrated@0.02` is
    /// for 2 % wrong answers per request.
    ///
    /// # Errors
    /// It is none of these; the file cannot be read or is no policy, or does not certify the promise.
    pub(crate) fn named(text: &str) -> Result<Self> {
        if let Some(number) = text.strip_prefix("threshold:") {
            let threshold: f64 = number
                .parse()
                .with_context(|| format!("{text}: {number} is no number"))?;
            let config = PolicyConfig::Threshold {
                threshold,
                guards: true,
            };
            return Self::of(text, &config);
        }
        let promise = text
            .rsplit_once('@')
            .and_then(|(policy, rate)| Some((policy, rate.parse::<f64>().ok()?)));
        let (policy, rate) = match promise {
            Some((policy, rate)) => (policy, Some(rate)),
            None => (text, None),
        };
        let mut config = match policy {
            "default" => PolicyConfig::default(),
            "calibrated" => PolicyConfig::Calibrated(CalibratedSettings::default()),
            "exact_only" => PolicyConfig::ExactOnly,
            path => from_file(Path::new(path))?,
        };
        if let Some(rate) = rate {
            let PolicyConfig::Calibrated(settings) = &mut config else {
                bail!("{policy} promises nothing, so there is no promise to choose by @{rate}");
            };
            settings.wrong_per_request = Some(rate);
        }
        let name = Path::new(text).file_name().unwrap_or(text.as_ref());
        Self::of(name.to_string_lossy(), &config).with_context(|| format!("{text} cannot be used"))
    }
}

/// The settings in a file: of any policy, or those that use a policy file.
fn from_file(path: &Path) -> Result<PolicyConfig> {
    let shown = path.display();
    let bytes = std::fs::read(path).with_context(|| {
        format!(
            "{shown} is no file, nor `default`, `calibrated`, `exact_only` or `threshold:NUMBER`"
        )
    })?;
    let value: serde_json::Value =
        serde_json::from_slice(&bytes).with_context(|| format!("{shown} is not JSON"))?;
    if value.get("stages").is_some() {
        return Ok(PolicyConfig::Calibrated(CalibratedSettings {
            path: Some(path.to_owned()),
            ..CalibratedSettings::default()
        }));
    }
    if value.get("type").is_none() {
        bail!("{shown} is no policy file and does not say its `type`");
    }
    serde_json::from_value(value).with_context(|| format!("{shown} is no policy"))
}

/// A threshold on one cosine and nothing else: what other caches do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cosine {
    /// Least cosine that is served.
    pub(crate) threshold: f32,
    /// Whether it is the cosine of the second space, which is then asked for every time.
    pub(crate) second: bool,
}

impl HitPolicy for Cosine {
    fn name(&self) -> &'static str {
        "threshold"
    }

    fn decide(&self, evidence: &Evidence) -> Decision {
        let cosine = match (self.second, evidence.refined) {
            (false, _) => Some(evidence.similarity),
            (true, None) if evidence.can_refine => {
                return Decision::Refine { probability: None };
            }
            (true, refined) => refined,
        };
        // The score of a pass is its cosine too, so that the curve goes on below the threshold.
        let score = cosine.map(f64::from);
        match cosine {
            Some(cosine) if cosine >= self.threshold => Decision::Serve {
                probability: score,
                utility: f64::from(cosine),
            },
            _ => Decision::Pass {
                reason: PassReason::BelowThreshold,
                probability: score.or(Some(-1.0)),
            },
        }
    }

    fn may_refine(&self) -> bool {
        self.second
    }

    fn least_similarity(&self) -> f32 {
        if self.second {
            f32::NEG_INFINITY
        } else {
            self.threshold
        }
    }
}

/// Evidence that can be hidden from a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Hidden {
    /// Margins in both spaces.
    Margin,
    /// How many candidates are nearly as similar, and how many entries there are.
    Density,
    /// The guards.
    Guards,
    /// What the words show.
    Text,
    /// The cosine of the second space.
    Refined,
}

impl Hidden {
    /// The name in reports and on the command line.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Margin => "margin",
            Self::Density => "density",
            Self::Guards => "guards",
            Self::Text => "text",
            Self::Refined => "refined",
        }
    }
}

/// A policy that is not told everything: what it loses is what the hidden evidence earns it, as it was
/// fitted. A model fitted without that evidence may lose less; give one as a file to see.
#[derive(Clone, Debug)]
pub(crate) struct Blinded {
    policy: PolicyHandle,
    hidden: Hidden,
}

impl Blinded {
    /// `contender` without this evidence.
    pub(crate) fn contender(contender: &Contender, hidden: Hidden) -> Contender {
        let policy = Arc::clone(&contender.policy);
        let name = format!("{} without {}", contender.name, hidden.as_str());
        Contender::new(name, Arc::new(Self { policy, hidden }))
    }
}

impl HitPolicy for Blinded {
    fn name(&self) -> &'static str {
        self.policy.name()
    }

    fn decide(&self, evidence: &Evidence) -> Decision {
        let mut evidence = *evidence;
        match self.hidden {
            Hidden::Margin => (evidence.margin, evidence.refined_margin) = (None, None),
            Hidden::Density => (evidence.density, evidence.rows) = (0, 0),
            Hidden::Guards => evidence.guards = GuardReport::default(),
            Hidden::Text => evidence.text = TextFeatures::default(),
            Hidden::Refined => {
                evidence.can_refine = false;
                (evidence.refined, evidence.refined_margin) = (None, None);
            }
        }
        self.policy.decide(&evidence)
    }

    fn calibrated_for(&self) -> &[String] {
        self.policy.calibrated_for()
    }

    fn may_refine(&self) -> bool {
        self.hidden != Hidden::Refined && self.policy.may_refine()
    }

    fn least_similarity(&self) -> f32 {
        self.policy.least_similarity()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_policy_is_known_by_name_and_by_file() {
        assert_eq!(Contender::named("default").unwrap().name, "default");
        let strict = Contender::named("threshold:0.99").unwrap().policy;
        assert_eq!(strict.least_similarity(), 0.99);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, r#"{{"type": "threshold", "threshold": 0.8}}"#).unwrap();
        let path = file.path().to_str().unwrap();
        assert_eq!(Contender::named(path).unwrap().policy.name(), "threshold");
    }

    #[test]
    fn what_is_no_policy_is_refused_by_name() {
        let refusal = |text: &str| format!("{:#}", Contender::named(text).unwrap_err());
        assert!(refusal("threshold:high").contains("high is no number"));
        assert!(refusal("nowhere.json").contains("nowhere.json is no file"));
        assert!(refusal("exact_only@0.01").contains("promises nothing"));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "{{}}").unwrap();
        assert!(refusal(file.path().to_str().unwrap()).contains("does not say its `type`"));
    }

    #[test]
    fn hidden_evidence_does_not_reach_the_policy() {
        let guarded = Contender::named("threshold:0.9").unwrap();
        let evidence = Evidence {
            guards: GuardReport::compare("eat meat", "do not eat meat"),
            ..Evidence::similarity(0.95)
        };
        let serves = |contender: &Contender| {
            matches!(contender.policy.decide(&evidence), Decision::Serve { .. })
        };
        assert!(!serves(&guarded));
        assert!(serves(&Blinded::contender(&guarded, Hidden::Guards)));
        assert!(!serves(&Blinded::contender(&guarded, Hidden::Margin)));
    }

    #[test]
    fn a_threshold_on_the_second_cosine_asks_for_it() {
        let policy = Cosine {
            threshold: 0.8,
            second: true,
        };
        let mut evidence = Evidence {
            can_refine: true,
            ..Evidence::similarity(0.2)
        };
        assert!(matches!(policy.decide(&evidence), Decision::Refine { .. }));
        evidence.refined = Some(0.85);
        assert!(matches!(policy.decide(&evidence), Decision::Serve { .. }));
        evidence.refined = Some(0.75);
        assert!(matches!(policy.decide(&evidence), Decision::Pass { .. }));
    }
}
