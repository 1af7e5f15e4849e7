"""The heads: estimators in the manner of scikit-learn, their parameters, what they share, and the catalogue of them."""
