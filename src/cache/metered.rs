//! What paid embedding models cost.
//!
//! A model is paid if the price table knows its name. Tokens are reckoned as a fourth of the bytes: providers
//! do not tell them for each text, and a tokenizer on the way of a lookup would cost more than it tells.

use std::fmt;
use std::sync::Arc;

use askonce_models::{Embedder, EmbedderHandle, ModelError, ModelId};
use parking_lot::Mutex;

use crate::savings::{Price, PriceTable, TokenCounter, Usage, Usd};

/// Money that was spent and not booked yet.
#[derive(Debug, Default)]
pub(super) struct Spent(Mutex<Usd>);

impl Spent {
    fn add(&self, usd: Usd) {
        *self.0.lock() += usd;
    }

    /// What there is, which is booked now.
    pub(super) fn take(&self) -> Usd {
        std::mem::take(&mut *self.0.lock())
    }
}

/// A paid model.
struct Metered {
    model: EmbedderHandle,
    price: Price,
    tokens: TokenCounter,
    spent: Arc<Spent>,
}

/// `model` with a meter, if `name` has a price.
pub(super) fn metered(
    model: EmbedderHandle,
    name: &str,
    prices: &PriceTable,
    spent: &Arc<Spent>,
) -> EmbedderHandle {
    match prices.price(name) {
        Some(price) => Arc::new(Metered {
            model,
            price,
            tokens: TokenCounter::estimating(),
            spent: Arc::clone(spent),
        }),
        None => model,
    }
}

impl fmt::Debug for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.model.fmt(f)
    }
}

impl Embedder for Metered {
    fn id(&self) -> &ModelId {
        self.model.id()
    }

    fn dimension(&self) -> usize {
        self.model.dimension()
    }

    async fn embed(&self, texts: &[&str]) -> Result<Vec<f32>, ModelError> {
        let vectors = self.model.embed(texts).await?;
        let tokens = texts.iter().map(|text| self.tokens.count("", text)).sum();
        self.spent.add(self.price.cost(&Usage::new(tokens, 0)));
        Ok(vectors)
    }
}

#[cfg(test)]
mod tests {
    use askonce_models::StaticEmbedder;

    use super::*;

    #[tokio::test]
    async fn a_paid_model_costs_what_it_reads() {
        let spent = Arc::default();
        let prices = PriceTable::builtin();
        let model: EmbedderHandle = Arc::new(StaticEmbedder::builtin());
        let paid = metered(
            Arc::clone(&model),
            "text-embedding-3-small",
            &prices,
            &spent,
        );
        paid.embed(&["hello world!", "and you"]).await.unwrap();
        let price = prices.price("text-embedding-3-small").unwrap();
        assert_eq!(spent.take(), price.cost(&Usage::new(3 + 2, 0)));
        assert_eq!(spent.take(), Usd::ZERO);
        let own = metered(model, "a-model-of-our-own", &prices, &spent);
        own.embed(&["hello world!"]).await.unwrap();
        assert_eq!(spent.take(), Usd::ZERO);
    }
}
