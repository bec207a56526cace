//! Which hits are audited. Each is drawn with a probability that is logged, so that what audits find can be
//! weighted back to all hits.

use serde::{Deserialize, Serialize};

use crate::config::AuditConfig;

/// The least and the most probability of an audit that looks for what teaches most.
const BOUNDS: (f64, f64) = (0.002, 0.2);

/// A hit that was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Drawn {
    /// The probability with which it was, above 0 and up to 1.
    pub(crate) probability: f64,
    /// Whether it was drawn as any hit could have been.
    pub(crate) uniform: bool,
}

/// Whether a hit of this probability is audited; `dice` are two uniform numbers, 0 to 1.
pub(crate) fn draw(
    config: &AuditConfig,
    probability: Option<f64>,
    dice: [f64; 2],
) -> Option<Drawn> {
    if !config.enabled {
        return None;
    }
    let p = probability.unwrap_or(0.5).clamp(0.0, 1.0);
    let doubt = match config.rate {
        0.0 => 0.0,
        rate => (rate * (p * (1.0 - p)).sqrt()).clamp(BOUNDS.0, BOUNDS.1),
    };
    let uniform = dice[0] < config.uniform_rate;
    (uniform || dice[1] < doubt).then_some(Drawn {
        probability: 1.0 - (1.0 - config.uniform_rate) * (1.0 - doubt),
        uniform,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    #[test]
    fn the_logged_probability_is_how_often_a_hit_is_drawn() {
        let config = AuditConfig {
            enabled: true,
            rate: 0.2,
            uniform_rate: 0.03,
            ..AuditConfig::default()
        };
        let mut rng = StdRng::seed_from_u64(1);
        for p in [0.5, 0.9, 0.999] {
            let (mut drawn, mut told, runs) = (0, 0.0, 60_000);
            for _ in 0..runs {
                if let Some(draw) = draw(&config, Some(p), [rng.random(), rng.random()]) {
                    drawn += 1;
                    told = draw.probability;
                }
            }
            let share = f64::from(drawn) / f64::from(runs);
            assert!((share - told).abs() < 0.1 * told, "{share} against {told}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_drawn_unless_audits_are_on(p in 0.0..1.0_f64, one in 0.0..1.0_f64, other in 0.0..1.0_f64) {
            prop_assert_eq!(draw(&AuditConfig::default(), Some(p), [one, other]), None);
            let on = AuditConfig { enabled: true, ..AuditConfig::default() };
            if let Some(drawn) = draw(&on, Some(p), [one, other]) {
                prop_assert!(drawn.probability >= 0.002 && drawn.probability <= 1.0);
            }
        }
    }
}
