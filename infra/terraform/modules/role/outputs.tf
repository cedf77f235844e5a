output "arn" {
  description = "ARN of the role."
  value       = aws_iam_role.this.arn
}

output "name" {
  description = "Name of the role."
  value       = aws_iam_role.this.name
}

output "statements" {
  description = "What its policy says."
  value       = jsondecode(aws_iam_role_policy.this.policy).Statement
}
