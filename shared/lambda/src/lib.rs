//! What the Lambdas have in common.
