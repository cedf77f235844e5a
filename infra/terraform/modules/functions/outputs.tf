output "lambdas" {
  description = "The Lambdas, by what they do."
  value = { for name, lambda in aws_lambda_function.this : name => {
    name       = lambda.function_name
    arn        = lambda.arn
    invoke_arn = lambda.invoke_arn
  } }
}

output "statements" {
  description = "What the role of each may do."
  value       = { for name, role in module.role : name => role.statements }
}

output "roles" {
  description = "The role of each."
  value       = { for name, role in module.role : name => role.name }
}

output "deployed" {
  description = "The Lambdas as they are."
  value       = aws_lambda_function.this
}

output "sources" {
  description = "What starts those that work off queues and the stream."
  value = {
    hints   = aws_lambda_event_source_mapping.hints
    uploads = aws_lambda_event_source_mapping.uploads
    stream  = aws_lambda_event_source_mapping.stream

    upload_recursion = aws_lambda_function_recursion_config.upload.recursive_loop
  }
}
