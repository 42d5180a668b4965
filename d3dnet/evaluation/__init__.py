"""Networks on test sets: protocols, metrics, results and what is shown of them."""
