output "policies" {
  description = "ARNs of the policies."
  value       = { for name, policy in aws_iam_policy.this : name => policy.arn }
}

output "statements" {
  description = "What they allow."
  value       = { for name, policy in aws_iam_policy.this : name => jsondecode(policy.policy).Statement }
}
