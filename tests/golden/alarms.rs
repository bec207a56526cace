//! Ordinary questions hold no secrets and no personal data, and none is taken for one that does.

use askonce::admit::{Admission, AdmissionConfig, Detector};
use askonce::{Answer, Request};

use crate::data;

#[test]
fn no_golden_prompt_raises_an_alarm() {
    let config = AdmissionConfig {
        detectors: vec![
            Detector::Secrets,
            Detector::Email,
            Detector::Phone,
            Detector::CreditCard,
            Detector::Iban,
            Detector::Ssn,
            Detector::Ip,
        ],
        ..AdmissionConfig::default()
    };
    let admission = Admission::new(&config).expect("the settings are valid");
    let clusters = data::clusters();
    let mut texts: Vec<String> = clusters.distractors;
    texts.extend(
        clusters
            .cluster
            .into_iter()
            .flat_map(|cluster| cluster.texts),
    );
    texts.extend(data::pairs().into_iter().flat_map(|pair| [pair.a, pair.b]));
    assert!(texts.len() > 1_000, "{}", texts.len());
    for text in texts {
        let finding = admission.find(&Request::prompt(text.as_str()), &Answer::text("Yes."));
        assert_eq!(finding, None, "{text}");
    }
}
